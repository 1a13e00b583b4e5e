"""What `capacity.reporting.html`, the terminal and the exports show of runs: rows in words, tables, and pictures."""
