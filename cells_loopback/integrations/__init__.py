"""Adapters for host libraries."""
