"""Dead letters of the kommuner's søknader: what is open, what waits behind it, and how it is sent again."""
