"""Which requests go ahead when servers are busy, and in what order the others wait."""
