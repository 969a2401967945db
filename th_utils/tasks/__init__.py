"""Tasks: prompts as tokens, with the roles of their positions and their answers."""
