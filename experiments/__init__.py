"""One script for each published claim that the lab runs again: what is stated, what is found, and a picture."""
