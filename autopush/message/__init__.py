"""What travels: the notification, the endpoint it is sent to, and who signed for it."""
