"""Models, losses and metrics of five image-retrieval papers, and the book that compares them."""
