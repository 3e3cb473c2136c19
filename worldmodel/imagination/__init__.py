"""imagination."""
