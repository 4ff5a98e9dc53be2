import { newRequestId, sessionPath } from "../api.js";
import { ask, toast } from "../dialogs.js";
import { element } from "../element.js";
import { counted, integer, readable } from "../format.js";

/** Resets or deletes one or many sessions, after a confirmation that names them. */

const AT_ONCE = 6;
const NAMED = 50;

/** Resolves to true if they were reset. sessions: from the API. */
export function resetSessions(api, sessions) {
  return confirmed({
    api,
    sessions,
    title: `Reset ${which(sessions)}?`,
    text: "The state becomes the model's initial one, at step 0, in a new generation. This cannot be undone. Clients that hold a position get an error.",
    button: "Reset",
    done: "reset",
    each: (session, requestId) =>
      api.post(sessionPath(session.model, session.session, "reset"), {
        generation: session.position.generation,
        request_id: requestId,
      }),
  });
}

/** Resolves to true if they were deleted. */
export function deleteSessions(api, sessions) {
  return confirmed({
    api,
    sessions,
    title: `Delete ${which(sessions)}?`,
    text: "State and log are removed from the store. This cannot be undone.",
    button: "Delete",
    done: "deleted",
    each: (session) =>
      api.delete(`${sessionPath(session.model, session.session)}?generation=${session.position?.generation ?? ""}`),
  });
}

/** The session's id, or how many there are. */
function which(sessions) {
  return sessions.length === 1 ? readable(sessions[0].session) : counted(sessions.length, "session");
}

/** Sends a request for each session. A failure is shown with the server's text, and does not stop the others. */
function confirmed({ sessions, title, text, button, done, each }) {
  const names = sessions.slice(0, NAMED).map(({ session }) => element("li", {}, readable(session)));
  if (sessions.length > NAMED) names.push(element("li", {}, `and ${integer(sessions.length - NAMED)} more`));
  return ask({
    title,
    text: [text, element("ul", { class: "named", tabindex: 0, "aria-label": "Affected sessions" }, names)],
    button: sessions.length === 1 ? button : `${button} ${counted(sessions.length, "session")}`,
    danger: true,
    act: async (form, problems) => {
      const bar = element("progress", { class: "bar", max: sessions.length, value: 0, "aria-label": "Progress" });
      if (sessions.length > 1) problems.replaceChildren(bar);
      const failed = [];
      const waiting = sessions.map((session) => ({ session, requestId: newRequestId() }));
      const work = async () => {
        for (let next = waiting.shift(); next; next = waiting.shift()) {
          try {
            await each(next.session, next.requestId);
          } catch (error) {
            failed.push({ name: next.session.session, error });
          }
          bar.value += 1;
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, work));
      const well = sessions.length - failed.length;
      if (failed.length) {
        const first = failed[0];
        first.error.message = `${integer(well)} ${done}, ${integer(failed.length)} failed. ${readable(first.name)}: ${first.error.message}`;
        throw first.error;
      }
      toast(`${which(sessions)} ${sessions.length === 1 ? "is " : ""}${done}.`);
      return true;
    },
  });
}
