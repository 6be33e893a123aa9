"""Prepares datasets: raw archives into the folders the library reads, and the built-in doodles."""
