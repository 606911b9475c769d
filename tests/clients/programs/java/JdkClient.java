// The JDK's HttpClient, which asks for HTTP/2 by `Connection: Upgrade, HTTP2-Settings` in its first request. Prints one JSON object.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public class JdkClient {
    static final Map<String, String> ENV = System.getenv();
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static final TreeSet<String> VERSIONS = new TreeSet<>();
    static final Pattern CONTENT = Pattern.compile("\"content\":\"([^\"]*)\"");

    static HttpRequest request(String path, String body, String key) {
        return HttpRequest.newBuilder(URI.create(ENV.get("BASE_URL") + path))
            .header("Authorization", "Bearer " + key)
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body))
            .build();
    }

    static HttpResponse<String> send(String path, String body, String key) throws Exception {
        HttpResponse<String> answer = CLIENT.send(request(path, body, key), BodyHandlers.ofString());
        VERSIONS.add(answer.version().toString());
        return answer;
    }

    static String body(String options) {
        return "{\"model\":\"" + ENV.get("MODEL") + "\",\"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}]" + options + "}";
    }

    static String found(Pattern pattern, String text) {
        Matcher matcher = pattern.matcher(text);
        StringBuilder all = new StringBuilder();
        while (matcher.find()) all.append(matcher.group(1));
        return all.toString();
    }

    static String stream() throws Exception {
        HttpResponse<Stream<String>> answer = CLIENT.send(
            request("/v1/chat/completions", body(",\"stream\":true"), ENV.get("API_KEY")), BodyHandlers.ofLines());
        return found(CONTENT, answer.body().collect(Collectors.joining("\n")));
    }

    static String quoted(Object text) {
        return "\"" + text + "\"";
    }

    public static void main(String[] arguments) throws Exception {
        String key = ENV.get("API_KEY");
        HttpResponse<String> whole = send("/v1/chat/completions", body(""), key);
        String usage = found(Pattern.compile("\"prompt_tokens\":(\\d+)"), whole.body())
            + "," + found(Pattern.compile("\"completion_tokens\":(\\d+)"), whole.body());
        String inputs = "{\"model\":\"" + ENV.get("MODEL") + "\",\"input\":[\"a\",\"b\"]}";
        int embeddings = send("/v1/embeddings", inputs, key).body().split("\"embedding\":\\[", -1).length - 1;
        List<String> errors = new ArrayList<>();
        for (String wrong : List.of("sk-inferd-wrong", ENV.get("BROKE_KEY"), ENV.get("LIMITED_KEY"))) {
            String status = quoted(send("/v1/chat/completions", body(""), wrong).statusCode());
            errors.add(status + ":[" + status + "]");
        }
        System.out.println("{\"chat\":" + quoted(found(CONTENT, whole.body())) + ",\"stream\":" + quoted(stream())
            + ",\"usage\":[[" + usage + "]],\"embeddings\":" + embeddings
            + ",\"versions\":[" + VERSIONS.stream().map(JdkClient::quoted).collect(Collectors.joining(",")) + "]"
            + ",\"errors\":{" + String.join(",", errors) + "}}");
        if (!ENV.get("VARIED").isEmpty())
            for (String options : List.of(",\"temperature\":0.3", ",\"max_tokens\":5", ",\"stop\":[\".\"]", ",\"n\":2", ",\"user\":\"ann\""))
                send("/v1/chat/completions", body(options), key);
    }
}
