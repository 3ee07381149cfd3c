"""Pure functions of attention rows: entropy, KL selectivity, susceptibility chi, and their geometry."""
