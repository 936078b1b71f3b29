"""Show what a run learned: tables, pictures, the model card and the report."""
