"""Small mutations of the loop, each of which breaks exactly one of its rules, and the tests that notice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "src" / "prefect_routines"
FOLD, PROPERTIES, REPLIES, FAULTS = "test_transcript", "test_transcript_properties", "test_replies", "test_faults"
CACHE, COMPACTION, SPENDING, LOGINS = "test_cache", "test_compaction", "test_spending", "test_logins"
OUTPUTS = "test_outputs"


@dataclass(frozen=True)
class Mutant:
    """One mutation: in `file` the text `old`, which is there exactly once, becomes `new`; `tests` are those that must fail.

    A test is named as `module::function` of tests/session, or by its path under tests.
    """

    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def apply(self, package: Path) -> None:
        """Mutate a copy of the package."""
        path = package / self.file
        source = path.read_text()
        assert source.count(self.old) == 1, f"{self.rule}: {self.old!r} is {source.count(self.old)} times in {self.file}"
        path.write_text(source.replace(self.old, self.new))


def _in(file: str, *rows: tuple[str, str, str, str]) -> list[Mutant]:
    return [Mutant(rule, file, old, new, tuple(tests.split())) for rule, old, new, tests in rows]


TRANSCRIPT = _in(
    "session/transcript.py",
    ("results in another order", "(_result_block(call) for call in self.calls)", "(_result_block(call) for call in reversed(self.calls))",
     f"{FOLD}::test_results_stand_in_claudes_order"),
    ("words before results", "[*(_result_block(call) for call in self.calls), *self._held]",
     "[*self._held, *map(_result_block, self.calls)]",
     f"{FOLD}::test_words_that_come_while_tools_run_stand_behind_the_results"),
    ("words while calls are open", "        if self.open_calls:\n            self._held", "        if False:\n            self._held",
     f"{PROPERTIES}::test_every_request_is_a_legal_conversation"),
    ("words said twice", "            self._held = []\n", "",
     f"{FOLD}::test_words_that_were_said_are_not_said_again"),
    ("errors not marked", 'if result.get("is_error"):', "if False:", f"{FOLD}::test_results_stand_in_claudes_order"),
    ("results before all have come", "        if not self.open_calls:  # all", "        if True:  # all",
     f"{PROPERTIES}::test_every_request_is_a_legal_conversation"),
    ("cut-off calls count as whole", 'cut_off = self.stop_reason != "tool_use"', "cut_off = False",
     f"{FOLD}::test_a_call_of_a_reply_that_was_cut_off_is_marked"),
    ("breakpoint on thinking", 'if content[index]["type"] not in THINKING:', "if True:", f"{FOLD}::test_no_breakpoint_on_thinking"),
    ("too many breakpoints", "for index in {last_reply - 1, len(messages) - 1}:", "for index in range(len(messages)):",
     f"{PROPERTIES}::test_at_most_four_breakpoints_and_none_on_thinking"),
    ("no breakpoint at the former end", "for index in {last_reply - 1, len(messages) - 1}:", "for index in {len(messages) - 1}:",
     f"{CACHE}::test_thirty_turns_read_what_was_cached"),
    ("no breakpoint at the end", "for index in {last_reply - 1, len(messages) - 1}:", "for index in {last_reply - 1}:",
     f"{CACHE}::test_thirty_turns_read_what_was_cached"),
    ("system without breakpoint", '_marked({"content": config["system"]})["content"]', 'config["system"]', f"{FOLD}::test_breakpoints"),
    ("breakpoints stored in blocks", 'content = list(message["content"])', 'content = message["content"]',
     f"{FOLD}::test_breakpoints_are_not_stored"),
    ("breakpoints stored in messages", "messages = list(self.messages)", "messages = self.messages",
     f"{FOLD}::test_breakpoints_are_not_stored"),
    ("keys sorted", 'content = data["content"]\n        if content:',
     'content = __import__("json").loads(__import__("json").dumps(data["content"], sort_keys=True))\n        if content:',
     f"{FOLD}::test_a_request_does_not_change_what_was_kept"),
    ("thinking dropped", 'content = data["content"]\n        if content:',
     'content = [b for b in data["content"] if b["type"] not in THINKING]\n        if content:',
     f"{FOLD}::test_a_request_does_not_change_what_was_kept"),
    ("tools in changing order", '"tools": config["tools"],', '"tools": config["tools"][:: 1 if len(messages) % 3 else -1],',
     f"{CACHE}::test_what_stands_first_never_changes"),
    ("a lost attempt costs nothing", "self.dollars += self.reserved  #", "self.dollars += 0  #",
     f"{FOLD}::test_an_attempt_that_was_lost_is_paid_as_reserved"),
    ("a failed attempt costs nothing",
     '        self.reserved = 0.0\n        self.dollars += data.get("dollars", 0.0)\n\n    def _form_opened',
     "        self.reserved = 0.0\n\n    def _form_opened", f"{FOLD}::test_a_failed_attempt_is_paid_as_billed"),
    ("a second result counts", "if call is None or call.result is not None:", "if call is None:",
     f"{FOLD}::test_a_second_result_of_a_call_changes_nothing"),
    ("a paused turn is a new message", 'if self.messages and self.messages[-1]["role"] == "assistant":  #', "if False:  #",
     f"{FOLD}::test_a_paused_turn_goes_on_in_the_same_message"),
    ("a paused turn is nudged", 'return self._spoken_to or self.stop_reason == "pause_turn"', "return self._spoken_to",
     f"{REPLIES}::test_a_paused_turn_is_sent_back_as_it_stands"),
    ("an empty reply is a message", "        if content:\n", "        if True:\n", f"{FOLD}::test_an_empty_reply_adds_no_message"),
    ("a summary beside what it summarises", 'self.messages = [{"role": "assistant", "content": data["content"]}]',
     'self.messages.append({"role": "assistant", "content": data["content"]})',
     f"{FOLD}::test_a_summary_takes_the_place_of_what_it_summarises"),
    ("a summary without its beta", "        if self.compactions:\n", "        if False:\n",
     f"{COMPACTION}::test_a_conversation_near_its_end_is_summarised"),
    ("the night counts", ' and entry.kind not in _AFTER_WAITING', "",
     f"{FOLD}::test_time_between_two_processes_does_not_count"),
    ("a person's time counts", '"session.cancelled", "form.answered")', '"session.cancelled")',
     "test_waiting_in_place::test_waiting_is_not_working"),
    ("unknown kinds break it", "        if handler is not None:\n", "        if True:\n", f"{FOLD}::test_an_unknown_kind_is_passed_over"),
    ("a restarted call counts twice", 'if not call.started and data.get("rule"):', 'if data.get("rule"):',
     f"{FOLD}::test_counts_of_rules_are_those_of_calls_that_began"),
)  # fmt: skip

LOOP = _in(
    "session/loop.py",
    ("retries without bound",
     "wait_before_retry(attempt, error.retry_after, allowed)", "wait_before_retry(attempt, error.retry_after, 10**6)",
     f"{FAULTS}::test_a_service_that_stays_busy_is_not_asked_for_ever"),
    ("retry-after ignored", "error.retry_after, allowed)):", "None, allowed)):", f"{FAULTS}::test_retry_after_is_honoured"),
    ("no retry", "            if not isinstance(error, Transient):\n", "            if True:\n",
     f"{FAULTS}::test_a_stream_that_breaks_is_asked_for_again[reset]"),
    ("failed attempts not journaled", '("turn.failed", {', '("turn.lost", {', f"{FAULTS}::test_what_a_broken_stream_had_used_is_paid"),
    ("attempts not reserved", 'await session.record(\n            ("turn.start", ', 'session.redact(\n            ("turn.start", ',
     f"{FAULTS}::test_a_stream_that_breaks_is_asked_for_again[reset]"),
    ("refusal ignored", 'if state.stop_reason == "refusal":', "if False:",
     f"{REPLIES}::test_a_refusal_ends_the_session {REPLIES}::test_a_refusal_in_the_middle_of_a_call_executes_nothing"),
    ("budget looked at one request later", "turns=state.turns,", "turns=state.turns - 1,", f"{SPENDING}::test_a_budget_ends_the_session"),
    ("budget ignored", 'return End("needs_attention", over, budget=True) if over else None', "return None",
     f"{SPENDING}::test_minutes_end_the_session"),
    ("a budget's end is green", 'return End("needs_attention", over, budget=True) if', 'return End("done", over, budget=True) if',
     f"{SPENDING}::test_minutes_end_the_session"),
    ("budget between calls and results",
     "    elif state.open_calls:\n        await answer(session, state.open_calls)\n    elif end := await ending(session):\n",
     "    elif state.open_calls and not await ending(session):\n        await answer(session, state.open_calls)\n"
     "    elif end := await ending(session):\n", f"{SPENDING}::test_a_budget_ends_the_session"),
    ("endless ends", "if state.unanswered_ends > NUDGES:", "if False:", f"{REPLIES}::test_endless_ends_need_attention"),
    ("an end is taken for done", "    elif not state.waits_for_reply:\n        await session.say(nudge(state.stop_reason))",
     '    elif not state.waits_for_reply:\n        await session.end("done", "it stopped")',
     f"{REPLIES}::test_an_end_without_a_report_is_asked_about"),
    ("compaction during open calls", "    elif state.open_calls:\n",
     "    elif state.open_calls and not state.context_tokens > COMPACT_AT * session.window:\n",
     f"{COMPACTION}::test_a_conversation_near_its_end_is_summarised"),
    ("no compaction", "COMPACT_AT = 0.65", "COMPACT_AT = 65", f"{COMPACTION}::test_a_conversation_near_its_end_is_summarised"),
    ("a full window is nudged on", ' or state.stop_reason == "model_context_window_exceeded"', "",
     f"{REPLIES}::test_a_full_window_is_compacted"),
    ("summaries for ever", "if session.transcript.fresh_summary:", "if False:", f"{FAULTS}::test_a_request_that_stays_too_long_fails"),
    ("an empty summary is taken", 'if reply.stop_reason != "compaction" or not any(', "if False and not any(",
     f"{COMPACTION}::test_no_summary_fails_with_the_cause"),
    ("the task is forgotten with the summary", "The task was:\\n\\n{session.prompt}", "",
     f"{COMPACTION}::test_a_conversation_near_its_end_is_summarised"),
)  # fmt: skip

CALLS = _in(
    "session/calls.py",
    ("calls one after the other", "            waiting.append(ready)", "            await together(session, [ready])",
     f"{REPLIES}::test_calls_of_one_reply_run_side_by_side"),
    ("everything side by side", "if ready.tool.alone:", "if False:", f"{REPLIES}::test_a_call_that_must_be_alone_is_waited_for"),
    ("a person's no is no answer",
     'return denied(decided) if decided is not None and decided["decision"] == "deny" else None', "return None",
     "test_waiting::test_denied_with_a_reason"),
    ("calls begin after an interrupt", "if (cut := session.steering.cut) is not None:", "if (cut := None) is not None:",
     "test_waiting::test_an_interrupt_stops_a_running_command_and_those_behind_it"),
    ("cut-off calls executed", "if call.cut_off:", "if False:", f"{REPLIES}::test_a_reply_that_was_cut_off_executes_nothing"),
    ("interrupted calls made again", "if call.started and not (tool.idempotent or tool.writes):", "if False:",
     f"{REPLIES}::test_a_call_that_was_interrupted"),
    ("arguments unchecked", "return tool.check(call.input if changed is None else changed)", "return dict(call.input)",
     f"{REPLIES}::test_every_call_is_answered_whatever_becomes_of_it"),
    ("policy not asked", 'if decision.answer == "allow":', "if True:",
     "tools/test_delivery.py::test_a_denied_tool_of_the_workspace_is_not_run"),
    ("counts ignored", "counts = {} if call.started else {**used, **session.outputs_used}", "counts: dict[str, int] = {}",
     "tools/test_delivery.py::test_a_count_is_used_up"),
    ("tool errors look fine", "result = ToolResult(str(error), is_error=True,", "result = ToolResult(str(error), is_error=False,",
     f"{REPLIES}::test_every_call_is_answered_whatever_becomes_of_it"),
    ("a tool that raises ends the session", "except Exception as error:  # a tool", "except KeyError as error:  # a tool",
     f"{REPLIES}::test_every_call_is_answered_whatever_becomes_of_it"),
    ("an unknown tool ends the session", "    if tool is None:\n        return ToolResult(",
     "    if tool is None:\n        raise ToolError(str)\n        return ToolResult(",
     f"{REPLIES}::test_every_call_is_answered_whatever_becomes_of_it"),
    ("calls without deadline", "asyncio.timeout(limit)", "asyncio.timeout(None)", f"{REPLIES}::test_a_call_that_takes_too_long_is_stopped"),
    ("starts not journaled", "    await session.record(*((\"tool.start\", start(ready)) for ready in group))\n", "",
     f"{REPLIES}::test_a_call_that_was_interrupted"),
    ("secrets kept", "session.redact(result.content)", "result.content", f"{LOGINS}::test_the_key_shows_nowhere"),
)  # fmt: skip

WRITES = [
    *_in("session/outputs.py",
    ("unforeseen is unseen", "    except Exception as error:  # a tool of the author's, or", "    except KeyboardInterrupt as error:  #",
     f"{OUTPUTS}::test_an_answer_that_nobody_had_foreseen_leaves_it_unknown"),
    ("secrets sent", "if session.redact(request) != request:", "if False:", f"{OUTPUTS}::test_a_secret_that_a_plan_adds_does_not_leave"),
    ("a rehearsal sends", "if session.settings.rehearsal:", "if False:", f"{OUTPUTS}::test_a_rehearsal_shows_what_would_have_been_sent"),
    ("writes not counted", "session.count_output(rule.text, 1)", "pass", f"{OUTPUTS}::test_two_in_one_turn_do_not_both_fit_one_permission"),
    ("what failed counts", "session.count_output(record.rule, -1)", "pass", f"{OUTPUTS}::test_what_did_not_arrive_does_not_count"),
    ("a lost answer is a failure", "    except OutcomeUnknown:\n        if plan.find", "    except KeyError:\n        if plan.find",
     f"{OUTPUTS}::test_a_lost_answer_is_looked_up")),
    *_in("session/calls.py",
    ("text leaves as it is", "return harmless(arguments, tool, allowance(session, arguments))", "return arguments",
     f"{OUTPUTS}::test_what_hides_is_gone_before_the_policy_looks"),
    ("half a secret sent", "if session.redactor.value(plain := jsonable(arguments)) != plain:", "if False:",
     f"{OUTPUTS}::test_half_a_secret_does_not_leave_either"),
    ("outside is inside", "from_outside=event is not None and event.from_outside", "from_outside=False",
     f"{OUTPUTS}::test_from_outside_the_target_is_not_claudes_to_choose")),
    *_in("policy.py", ("a missing field is a wildcard", "name or main, _filled(glob, event or {})",
    'name or main, _filled(glob, event or {}) or "*"',
    f"{OUTPUTS}::test_without_an_event_such_a_rule_allows_nothing")),
    *_in("workspace/workspace.py", ("unknown is done", " or bool(unknown)\n", "\n", f"{OUTPUTS}::test_what_cannot_be_found_stays_unknown")),
]  # fmt: skip

CLAUDE = _in(
    "session/claude.py",
    ("a polite end is taken for the end", "if not ended or message is None or message.stop_reason is None:", "if message is None:",
     f"{FAULTS}::test_wherever_a_stream_ends_politely_it_is_not_taken_for_the_end"),
    ("all but the end is enough", "if not ended or message", "if message", f"{FAULTS}::test_a_stream_that_breaks_is_asked_for_again[eof]"),
    ("a stream may be silent", "return cls(client, stall)", "return cls(client, 3600.0)",
     f"{FAULTS}::test_pings_alone_are_no_word"),
    ("a long reply is a stall", "silence.reschedule(asyncio.get_running_loop().time() + self._stall)", "pass",
     f"{FAULTS}::test_a_slow_reply_is_no_stall"),
    ("broken input executed", 'if message.stop_reason == "tool_use" and not all(', "if False and not all(",
     f"{REPLIES}::test_malformed_input_is_never_executed"),
    ("one id twice", 'if len({call["id"] for call in calls}) < len(calls):', "if False:",
     f"{REPLIES}::test_two_calls_with_one_id_are_not_executed"),
    ("retries that nobody counts", "max_retries=0,", "max_retries=2,", f"{FAULTS}::test_a_busy_service_is_asked_again"),
    ("thinking dropped from replies", "for block in message.content]", 'for block in message.content if block.type != "thinking"]',
     f"{REPLIES}::test_thinking_and_unknown_blocks_come_back_unchanged"),
    ("what broke off was free", 'the connection to Claude failed: {_cause(error)}", tokens=_tokens(message))',
     'the connection failed", tokens=None)',
     f"{FAULTS}::test_what_a_broken_stream_had_used_is_paid"),
    ("errors in a stream are final", "if kind in TRANSIENT_TYPES or status in", "if status in",
     f"{FAULTS}::test_a_stream_that_breaks_is_asked_for_again[error]"),
    ("refused requests repeated", 'return refused(f"Claude refused the request (', 'return Transient(f"Claude refused the request (',
     f"{FAULTS}::test_what_asking_again_does_not_mend_fails_at_once"),
    ("a wrong key is found late", "            if error.status_code in (401, 403):\n", "            if False:\n",
     f"{LOGINS}::test_a_wrong_key_fails_before_a_token_is_spent"),
    ("an unknown model is found late", 'if error.type == "not_found_error":', "if False:",
     f"{LOGINS}::test_an_unknown_model_fails_before_a_token_is_spent"),
    ("retry-after in other units", '("retry-after", 1.0)', '("retry-after", 0.0)', f"{FAULTS}::test_retry_after_is_honoured"),
    ("waits past the deadline", "    if seconds >= remaining:\n        return False\n", "",
     f"{FAULTS}::test_the_wait_is_as_long_as_asked_for"),
    ("a request that is too long is final", "    if status == 413 or (", "    if (",
     f"{FAULTS}::test_a_request_that_is_too_long_is_compacted"),
)  # fmt: skip

ELSEWHERE = [
    *_in("session/session.py", ("a stranger's text in the prompt", 'self.prompt = storable(prompt)',
         'self.prompt = storable(prompt + (await event_text(self, "") if self.event else ""))',
         "tools/test_events.py::test_the_body_is_read_from_the_store_by_id")),
    *_in("workspace/workspace.py", ("guidelines of a stranger's branch", 'mirror.default_sha, "CLAUDE.md")',
    'mirror.base_sha, "CLAUDE.md")',
         "tools/test_delivery.py::test_guidelines_come_from_the_default_branch_as_data")),
    *_in("tools/report.py", ("done with work left behind", 'if verdict == "done" and loose:', "if False:",
         "tools/test_delivery.py::test_done_with_work_left_behind_is_refused")),
]  # fmt: skip

MUTANTS = [*TRANSCRIPT, *LOOP, *CALLS, *WRITES, *CLAUDE, *ELSEWHERE]


# Mutants that make the loop go round or wait for ever: not to end is how they are noticed.
MAY_HANG = {
    "compaction during open calls",
    "an empty summary is taken",
    "summaries for ever",
    "calls without deadline",
    "a stream may be silent",
    "one id twice",
}


def node(test: str) -> str:
    """The test's id for pytest, from the directory of the tests."""
    if "/" in test:
        return test
    module, _, function = test.partition("::")
    return f"session/{module}.py::{function}"
