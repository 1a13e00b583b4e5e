"""`python -m capacity stress`: what whole machines do that one accelerator alone does not, as named scenarios."""
