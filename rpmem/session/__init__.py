"""One replica: start, negotiate, connect, librpmem's calls."""
