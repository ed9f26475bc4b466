"""The command line: one file per verb; nothing slow is imported before a verb runs."""
