"""The client kit of a device maker: participant, desks, panic button, journal."""
