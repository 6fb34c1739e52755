"""From a target of a report to boxes: the placement table, its rules, and the lung zones."""
