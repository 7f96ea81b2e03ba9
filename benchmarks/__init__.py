"""How fast and how large the loss is, side by side with its peers; see README.md here."""
