// Sends what each line of standard input asks for with the package web-push, and answers each with a
// line of what it says. ../programs.py tells what both look like.
'use strict';

const readline = require('readline');
const webPush = require('web-push');

async function send(order) {
  const { vapid, subscription, ttl, text } = order;
  const options = {
    vapidDetails: {
      subject: vapid.subject,
      publicKey: vapid.public,
      privateKey: vapid.private,
    },
    TTL: ttl,
    contentEncoding: webPush.supportedContentEncodings.AES_128_GCM,
  };
  try {
    const { statusCode, headers, body } = await webPush.sendNotification(subscription, text, options);
    return { said: 'ok', status: statusCode, headers, body };
  } catch (error) {
    const { statusCode, headers, body } = error;
    return { said: error.name, text: error.message, status: statusCode, headers, body };
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await send(JSON.parse(line))));
  }
})();
