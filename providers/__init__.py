"""How to speak to each kind of upstream; pure, no ORM, no I/O."""
