// What an application server does to a message: encrypt it (RFC 8291, RFC 8188) and sign for it (RFC 8292).

const RECORD_SIZE = 4096;
const TOKEN_LIFE = 12 * 3600; // seconds; RFC 8292 2 allows a day
const CURVE = "P-256";
const LAST_RECORD = 2;

const text = new TextEncoder();

/** Join texts and bytes. */
export function joined(...parts) {
  const bytes = parts.map((part) => (typeof part === "string" ? text.encode(part) : new Uint8Array(part)));
  const whole = new Uint8Array(bytes.reduce((size, part) => size + part.length, 0));
  let place = 0;
  for (const part of bytes) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

/** Bytes as URL-safe base64 without padding. */
export function base64url(bytes) {
  const binary = String.fromCharCode(...new Uint8Array(bytes));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function derived(salt, secret, info, size) {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt, info };
  return crypto.subtle.deriveBits(how, key, size * 8);
}

/**
 * Encrypt a text for a subscription.
 * @param {PushSubscription} subscription
 * @returns {Promise<Uint8Array>} the body of the message, in the encoding aes128gcm
 */
export async function encrypted(subscription, message) {
  const receiver = subscription.getKey("p256dh");
  const ecdh = { name: "ECDH", namedCurve: CURVE };
  const pair = await crypto.subtle.generateKey(ecdh, false, ["deriveBits"]);
  const sender = await crypto.subtle.exportKey("raw", pair.publicKey);
  const theirs = await crypto.subtle.importKey("raw", receiver, ecdh, false, []);
  const shared = await crypto.subtle.deriveBits({ name: "ECDH", public: theirs }, pair.privateKey, 256);
  const about = joined("WebPush: info\0", receiver, sender);
  const secret = await derived(subscription.getKey("auth"), shared, about, 32);
  const salt = crypto.getRandomValues(new Uint8Array(16));
  const raw = await derived(salt, secret, joined("Content-Encoding: aes128gcm\0"), 16);
  const iv = await derived(salt, secret, joined("Content-Encoding: nonce\0"), 12);
  const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt"]);
  const plain = joined(message, [LAST_RECORD]);
  const sealed = await crypto.subtle.encrypt({ name: "AES-GCM", iv }, key, plain);
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, RECORD_SIZE);
  return joined(salt, size, [sender.byteLength], sender, sealed);
}

/** Who sends: a key of its own, which nobody keeps. */
export class Sender {
  static async made() {
    const how = { name: "ECDSA", namedCurve: CURVE };
    const pair = await crypto.subtle.generateKey(how, false, ["sign"]);
    return new Sender(pair.privateKey, await crypto.subtle.exportKey("raw", pair.publicKey));
  }

  constructor(key, publicKey) {
    this.key = key;
    this.publicKey = new Uint8Array(publicKey);
  }

  /** The Authorization header for an endpoint. */
  async authorization(endpoint) {
    const header = { typ: "JWT", alg: "ES256" };
    const claims = {
      aud: new URL(endpoint).origin,
      exp: Math.floor(Date.now() / 1000) + TOKEN_LIFE,
    };
    const signed = [header, claims].map((one) => base64url(joined(JSON.stringify(one)))).join(".");
    const how = { name: "ECDSA", hash: "SHA-256" };
    const signature = await crypto.subtle.sign(how, this.key, joined(signed));
    return `vapid t=${signed}.${base64url(signature)}, k=${base64url(this.publicKey)}`;
  }
}
