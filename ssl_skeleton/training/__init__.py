"""The training loop, and what it needs: schedules, checkpoints, a log. It knows no evaluator."""
