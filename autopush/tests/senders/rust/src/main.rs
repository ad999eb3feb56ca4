//! Sends what each line of standard input asks for with the crate `web-push`, and answers each with
//! a line of what the crate says. ../programs.py tells what both look like.

use serde_json::{json, Value};
use std::io::{stdin, stdout, BufRead, Write};
use web_push::{
    ContentEncoding, HyperWebPushClient, SubscriptionInfo, VapidSignatureBuilder, WebPushClient,
    WebPushError, WebPushMessageBuilder,
};

/// Builds a message as the documentation of the crate does, and sends it.
async fn send(order: &Value) -> Result<(), WebPushError> {
    let subscription: SubscriptionInfo = serde_json::from_value(order["subscription"].clone())?;
    let private = order["vapid"]["private"].as_str().unwrap_or("");
    let mut signature = VapidSignatureBuilder::from_base64(private, &subscription)?;
    signature.add_claim("sub", order["vapid"]["subject"].as_str().unwrap_or(""));

    let text = order["text"].as_str().unwrap_or("");
    let mut builder = WebPushMessageBuilder::new(&subscription);
    builder.set_ttl(order["ttl"].as_u64().unwrap_or(0) as u32);
    builder.set_vapid_signature(signature.build()?);
    builder.set_payload(ContentEncoding::Aes128Gcm, text.as_bytes());
    let mut message = builder.build()?;
    if let (Some(size), Some(payload)) = (order["body_size"].as_u64(), message.payload.as_mut()) {
        // The crate refuses to encrypt so much, but sends whatever a message has.
        payload.content.resize(size as usize, 0);
    }
    HyperWebPushClient::new().send(message).await
}

/// What the crate says: in success nothing, else what went wrong, with the status and the errno of
/// the service as far as it keeps them.
fn report(result: Result<(), WebPushError>) -> Value {
    let error = match result {
        Ok(()) => return json!({"said": "ok"}),
        Err(error) => error,
    };
    let (status, errno) = match &error {
        WebPushError::Unauthorized(info)
        | WebPushError::BadRequest(info)
        | WebPushError::ServerError { info, .. }
        | WebPushError::EndpointNotValid(info)
        | WebPushError::EndpointNotFound(info)
        | WebPushError::Other(info) => (Some(info.code), Some(info.errno)),
        _ => (None, None),
    };
    json!({
        "said": error.short_description(),
        "status": status,
        "errno": errno,
        "text": error.to_string(),
    })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for line in stdin().lock().lines() {
        let order: Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        println!("{}", report(runtime.block_on(send(&order))));
        stdout().flush().expect("a reader");
    }
}
