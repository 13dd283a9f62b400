"""What was spent: one record per relayed request."""
