"""What travels: the notification, the endpoint it is sent to, and who signed for it.

No module of this package does any input or output::

    POST /wpush/v2/<token>          endpoint_token   whose channel, and whose key may send there
    Authorization: vapid t=, k=     vapid, jwt       who sends, and that the signature is right
    Crypto-Key:, Encryption:        crypto_key       how old drafts say it
    TTL:, Topic:, the body          notification     what is delivered, stored, or sent to a vendor

A :class:`~autopush.message.notification.WebPushNotification` is the same object from the handler
to the frame. It knows each form it takes on the way: JSON between nodes, the sort key of its row,
the frame for the browser.
"""
