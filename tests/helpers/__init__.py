"""What several test files share: input that is written for a test, jobs that are run for it, and what is read back."""
