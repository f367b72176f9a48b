// Posts with what Java brings along: java Post.java URL KEYSTORE.p12 PASSWORD CA → one line per answer, "VERSION STATUS".
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Post {
	static SSLContext tls(String keystore, char[] password, String ca) throws Exception {
		KeyStore own = KeyStore.getInstance("PKCS12");
		try (var in = new FileInputStream(keystore)) {
			own.load(in, password);
		}
		KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
		keys.init(own, password);
		KeyStore trusted = KeyStore.getInstance("PKCS12");
		trusted.load(null, null);
		int n = 0;
		try (var in = new FileInputStream(ca)) {
			for (var certificate : CertificateFactory.getInstance("X.509").generateCertificates(in))
				trusted.setCertificateEntry("ca" + n++, certificate);
		}
		TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
		trust.init(trusted);
		SSLContext context = SSLContext.getInstance("TLSv1.3");
		context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
		return context;
	}

	public static void main(String[] args) throws Exception {
		SSLContext context = tls(args[1], args[2].toCharArray(), args[3]);
		for (var version : HttpClient.Version.values()) {
			HttpClient client = HttpClient.newBuilder().sslContext(context).version(version).build();
			for (boolean expect : new boolean[] {false, true}) {
				String body = "{\"sender_number\":\"+4915112345678\",\"message_body\":\"from Java\"}";
				HttpRequest request = HttpRequest.newBuilder(URI.create(args[0] + "/api/v1/messages"))
					.header("Content-Type", "application/json").expectContinue(expect)
					.POST(HttpRequest.BodyPublishers.ofString(body)).build();
				HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
				System.out.println(answer.version() + " " + answer.statusCode());
			}
		}
	}
}
