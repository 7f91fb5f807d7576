import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** Ratings in Java, run from source: {@code java Ratings.java}. Listens on every address, port 9080. */
public final class Ratings {
    private static final String VERSION = System.getenv().getOrDefault("VERSION", "v1");
    private static final String INSTANCE =
            System.getenv().getOrDefault("INSTANCE", VERSION + "/" + ProcessHandle.current().pid());

    private Ratings() {}

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("PORT", "9080"));
        HttpServer server = HttpServer.create(new InetSocketAddress(port), 128);
        server.createContext("/", Ratings::answer);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
        System.out.println("ratings " + VERSION + " (Java) listens on port " + port);
    }

    private static void answer(HttpExchange exchange) throws IOException {
        exchange.getRequestBody().readAllBytes();
        String path = exchange.getRequestURI().getPath();
        if (path.equals("/health")) {
            reply(exchange, 200, "{\"service\": \"ratings\", \"healthy\": true}");
        } else if (path.startsWith("/ratings/")) {
            reply(exchange, 200, "{\"service\": \"ratings\", \"version\": \"" + VERSION + "\", \"instance\": \""
                    + INSTANCE + "\", \"language\": \"java\", \"stars\": [5, 4]}");
        } else {
            reply(exchange, 404, "{\"error\": \"no such page\"}");
        }
    }

    private static void reply(HttpExchange exchange, int status, String text) throws IOException {
        byte[] body = (text + "\n").getBytes("UTF-8");
        exchange.getResponseHeaders().set("content-type", "application/json");
        exchange.sendResponseHeaders(status, body.length);
        try (var out = exchange.getResponseBody()) {
            out.write(body);
        }
    }
}
