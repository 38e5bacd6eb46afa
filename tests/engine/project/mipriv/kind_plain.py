"""What the row `plain` imports."""

ADD = 0
