"""Agents that learn from reward, and the exact values they are measured against."""
