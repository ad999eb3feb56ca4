// Sends what each line of standard input asks for with the library web-push, and answers each with a
// line of what it says. ../programs.py tells what both look like.

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.Security;
import nl.martijndwars.webpush.Encoding;
import nl.martijndwars.webpush.Notification;
import nl.martijndwars.webpush.PushService;
import org.apache.http.Header;
import org.apache.http.HttpResponse;
import org.apache.http.util.EntityUtils;
import org.bouncycastle.jce.provider.BouncyCastleProvider;

public final class Sender {
  private static JsonObject send(JsonObject order) {
    JsonObject subscription = order.getAsJsonObject("subscription");
    JsonObject keys = subscription.getAsJsonObject("keys");
    JsonObject vapid = order.getAsJsonObject("vapid");
    JsonObject report = new JsonObject();
    try {
      PushService service =
          new PushService(
              vapid.get("public").getAsString(),
              vapid.get("private").getAsString(),
              vapid.get("subject").getAsString());
      Notification notification =
          new Notification(
              subscription.get("endpoint").getAsString(),
              keys.get("p256dh").getAsString(),
              keys.get("auth").getAsString(),
              order.get("text").getAsString().getBytes(StandardCharsets.UTF_8),
              order.get("ttl").getAsInt());
      HttpResponse answer = service.send(notification, Encoding.AES128GCM);
      JsonObject headers = new JsonObject();
      for (Header header : answer.getAllHeaders()) {
        headers.addProperty(header.getName().toLowerCase(), header.getValue());
      }
      report.addProperty("said", "ok");
      report.addProperty("status", answer.getStatusLine().getStatusCode());
      report.add("headers", headers);
      report.addProperty("body", EntityUtils.toString(answer.getEntity()));
    } catch (Exception exception) {
      report.addProperty("said", exception.toString());
    }
    return report;
  }

  public static void main(String[] arguments) throws Exception {
    Security.addProvider(new BouncyCastleProvider());
    BufferedReader lines =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      System.out.println(new Gson().toJson(send(JsonParser.parseString(line).getAsJsonObject())));
    }
  }
}
