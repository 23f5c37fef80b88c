"""Opening: what a name means, bases and adapters of ours and of others."""
