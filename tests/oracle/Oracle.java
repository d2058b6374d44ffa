import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedInputStream;
import java.io.DataInputStream;
import java.io.EOFException;
import java.lang.reflect.Field;
import java.lang.reflect.Modifier;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.operaton.bpm.engine.rest.dto.VariableValueDto;
import org.operaton.bpm.engine.rest.dto.runtime.StartProcessInstanceDto;
import org.operaton.bpm.engine.rest.dto.runtime.VariableNameDto;
import org.operaton.bpm.engine.rest.mapper.JacksonConfigurator;

/**
 * Reads bodies as the engine does: its own classes, its own mapper. Each record on standard input is a
 * body, what the gateway made of it, and for whom; every way in which the engine would read in it what
 * the gateway promises to keep out is one line on standard output.
 */
public class Oracle {

  /** As {@code variables} in the gateway's own output. */
  private static final Map<String, String> OURS =
      new HashMap<>(Map.of("initiator", "user_ada", "initiatorEmail", "ada@example.org", "initiatorName", "Ada \"\\\u00ff\u2028", "starter", "user_ada"));

  /** How many findings are printed; all are counted. */
  private static final int SHOWN = 20;

  /** They select and write nothing. */
  private static final Set<String> SELECTING = Set.of("correlationKeys", "localCorrelationKeys");

  private static final ObjectMapper DTO = JacksonConfigurator.configureObjectMapper(new ObjectMapper());
  private static final ObjectMapper TREE =
      JsonMapper.builder()
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
          .enable(DeserializationFeature.USE_BIG_INTEGER_FOR_INTS)
          .build();

  private static boolean startsAnywhere;

  public static void main(String[] arguments) throws Exception {
    // Jersey's provider reads one value and then asks for the end, as this feature does.
    DTO.enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);
    var in = new DataInputStream(new BufferedInputStream(System.in, 1 << 20));
    long bodies = 0, accepted = 0, understood = 0, wrong = 0, refusedButRead = 0;
    var reasons = new TreeMap<String, Integer>();
    while (true) {
      String type;
      try {
        type = text(in);
      } catch (EOFException end) {
        break;
      }
      String places = text(in);
      String written = text(in);
      boolean user = in.readBoolean();
      byte[] original = bytes(in);
      String refused = text(in);
      bodies++;
      Class<?> dto = Class.forName("org.operaton.bpm.engine.rest.dto." + type);
      if (!refused.isEmpty()) {
        if (reads(original, dto) == null) {
          refusedButRead++;
          reasons.merge(refused.replaceAll("`[^`]*`", "_").replaceAll("[0-9]+", "N"), 1, Integer::sum);
        }
        bytes(in);
        continue;
      }
      byte[] result = bytes(in);
      accepted++;
      List<String> findings = new ArrayList<>();
      Object read = null;
      try {
        read = DTO.readValue(result.length == 0 ? "{}".getBytes() : result, dto);
      } catch (Exception unread) {
        if (reads(original, dto) == null) {
          findings.add("the engine reads the caller's body and not ours: " + unread.getMessage());
        }
      }
      if (read != null) {
        understood++;
        startsAnywhere = places.contains("startInstructions");
        walk(read, "", written, user, findings);
      }
      compare(original, result, places, written, findings);
      for (String finding : findings) {
        if (++wrong > SHOWN) {
          continue;
        }
        System.out.println(type + (user ? " user " : " transparent ") + finding + "\n  from " + show(original) + "\n  made " + show(result));
      }
    }
    System.out.println(
        "bodies " + bodies + " accepted " + accepted + " understood " + understood + " refused-but-read " + refusedButRead + " wrong " + wrong);
    reasons.forEach((reason, count) -> System.out.println("  " + count + " " + reason));
    System.exit(wrong == 0 ? 0 : 1);
  }

  private static String reads(byte[] body, Class<?> dto) {
    try {
      return DTO.readValue(body, dto) == null ? "null" : null;
    } catch (Exception | StackOverflowError unread) {
      return String.valueOf(unread.getMessage());
    }
  }

  /** Goes through all that the engine holds of a body. */
  private static void walk(Object value, String way, String written, boolean user, List<String> findings)
      throws IllegalAccessException {
    if (value instanceof VariableNameDto name) {
      if (OURS.containsKey(name.getName())) {
        findings.add("deletes " + name.getName());
      }
    } else if (value instanceof Map<?, ?> map) {
      boolean isWritten = way.equals("." + written);
      for (var entry : map.entrySet()) {
        if (entry.getValue() == null ? way.endsWith("ariables") || way.endsWith("modifications") : entry.getValue() instanceof VariableValueDto) {
          var variable = (VariableValueDto) entry.getValue();
          String ours = OURS.get(entry.getKey());
          if (ours == null) {
            if (user && variable != null) {
              object(variable, findings);
            }
          } else if (!isWritten) {
            findings.add("writes " + entry.getKey() + " in " + way);
          } else if (variable == null || !ours.equals(variable.getValue()) || !"String".equals(variable.getType()) || variable.getValueInfo() != null) {
            findings.add("forges " + entry.getKey() + " in " + way);
          }
        }
      }
      if (isWritten && !map.keySet().containsAll(OURS.keySet())) {
        findings.add("lacks the initiator");
      }
    } else if (value instanceof Collection<?> elements) {
      for (Object element : elements) {
        if (way.endsWith("deletions") && OURS.containsKey(element)) {
          findings.add("deletes " + element);
        }
        walk(element, way + "[]", written, user, findings);
      }
    } else if (value != null && value.getClass().getName().startsWith("org.operaton.bpm.engine.rest.dto.")) {
      if (user && value instanceof VariableValueDto variable) {
        object(variable, findings);
      }
      for (Class<?> type = value.getClass(); type != Object.class; type = type.getSuperclass()) {
        for (Field field : type.getDeclaredFields()) {
          if (Modifier.isStatic(field.getModifiers()) || SELECTING.contains(field.getName())) {
            continue;
          }
          field.setAccessible(true);
          Object held = field.get(value);
          if (way.isEmpty() && field.getName().equals(written) && held == null) {
            findings.add("has no " + written);
          }
          // A form is submitted with variables and business key alone, whatever else its class can hold.
          boolean unused = value instanceof StartProcessInstanceDto && !startsAnywhere;
          if (unused && !field.getName().equals("variables")) {
            continue;
          }
          if (user) {
            guarded(field.getName(), held, findings);
          }
          walk(held, way + "." + field.getName(), written, user, findings);
        }
      }
    }
  }

  private static void guarded(String name, Object held, List<String> findings) {
    boolean set = held != null && !held.equals(false) && !(held instanceof Map<?, ?> map && map.isEmpty());
    if (set && (Set.of("startInstructions", "skipCustomListeners", "skipIoMappings", "expressions").contains(name) || name.endsWith("Expression"))) {
      findings.add("uses " + name);
    }
    if (name.equals("userId") && !"user_ada".equals(held)) {
      findings.add("acts for " + held);
    }
  }

  private static void object(VariableValueDto variable, List<String> findings) {
    if (variable.getType() == null || variable.getType().isEmpty() || !VariableValueDto.fromRestApiTypeName(variable.getType()).equals("object")) {
      return;
    }
    Object format = variable.getValueInfo() == null ? null : variable.getValueInfo().get("serializationDataFormat");
    if (format == null || format.equals("application/x-java-serialized-object")) {
      findings.add("an Object of Java");
    }
  }

  /** What we made must be the caller's document but for the protected names in the places. */
  private static void compare(byte[] original, byte[] result, String places, String written, List<String> findings)
      throws Exception {
    JsonNode ours;
    JsonNode theirs;
    try {
      theirs = TREE.readTree(original.length == 0 ? "{}".getBytes() : original);
      ours = TREE.readTree(result.length == 0 ? "{}".getBytes() : result);
    } catch (Exception unread) {
      // Of an exponent beyond what it can hold nothing can be said here; the engine takes it as infinite.
      if (!String.valueOf(unread.getMessage()).matches("(?s).*(exceeds the maximum|can not be deserialized as).*")) {
        findings.add("no JSON: " + unread.getMessage());
      }
      return;
    }
    for (String place : places.split(",")) {
      if (!place.isEmpty() && !place.startsWith("{") && !place.contains("deletions")) {
        strip(theirs, place.split("\\."), 0);
      }
    }
    if (!written.isEmpty()) {
      JsonNode map = theirs.get(written);
      if (map == null || map.isNull()) {
        map = ((ObjectNode) theirs).putObject(written);
      }
      for (var ours1 : OURS.entrySet()) {
        ((ObjectNode) map).putObject(ours1.getKey()).put("value", ours1.getValue()).put("type", "String");
      }
    }
    if (!theirs.equals(ours)) {
      findings.add("another document");
    }
  }

  private static void strip(JsonNode node, String[] steps, int at) {
    if (node == null) {
      return;
    }
    if (at == steps.length) {
      if (node instanceof ObjectNode map) {
        map.remove(OURS.keySet());
      }
      return;
    }
    boolean each = steps[at].endsWith("[]");
    JsonNode next = node.get(each ? steps[at].substring(0, steps[at].length() - 2) : steps[at]);
    if (each && next instanceof ArrayNode elements) {
      elements.forEach(element -> strip(element, steps, at + 1));
    } else if (!each) {
      strip(next, steps, at + 1);
    }
  }

  private static String show(byte[] body) {
    String text = new String(body, StandardCharsets.UTF_8);
    return text.length() > 600 ? text.substring(0, 600) + "..." : text;
  }

  private static byte[] bytes(DataInputStream in) throws Exception {
    byte[] bytes = new byte[in.readInt()];
    in.readFully(bytes);
    return bytes;
  }

  private static String text(DataInputStream in) throws Exception {
    return new String(bytes(in), StandardCharsets.UTF_8);
  }
}
