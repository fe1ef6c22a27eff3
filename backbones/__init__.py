"""Networks; they know nothing of tasks."""
