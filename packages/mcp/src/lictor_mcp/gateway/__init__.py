"""`lictor gateway`: a relay in front of a server that nobody can change."""
