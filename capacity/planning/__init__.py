"""Planning: from offers and a demand to the cheapest fleet that holds, what would break it, and its check."""
