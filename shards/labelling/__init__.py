"""What is added to a portrait after it is read: its place in the picture, masks, labels."""
