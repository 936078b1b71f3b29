"""Write a run as a model folder, and push it to the Hub."""
