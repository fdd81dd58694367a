"""What both cloud dialects share: the door at `/`, who asks, and the yard's nouns in a cloud's words."""
