"""The classes: one function each, named like the class."""
