"""One of several processes of a run, started by training.launch."""

from replication import training
from replication.papers.zse_sbir import Config, prepare, train

train(prepare(Config(**training.launched_config())))
