"""What the row `other` imports."""

ADD = 100
