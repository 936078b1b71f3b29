"""The tasks that a policy is trained on."""
