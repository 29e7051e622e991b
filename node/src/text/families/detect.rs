//! What a chat template says about its family, by the marks in its text.

use super::answer_reader::Reasoning;
use super::family::{Family, HERMES, LLAMA, MISTRAL};
use super::reasoning;

/// How a model can be offered tools.
#[derive(Clone, Copy)]
pub enum ToolSupport {
    /// Its template knows tools, and this is how it writes calls.
    Native(&'static dyn Family),
    /// Its template knows nothing of tools: they are described in the system message, calls asked for in this way.
    Described(&'static dyn Family),
    /// Its template knows tools, in a way that is not known here.
    Unknown,
}

impl ToolSupport {
    pub fn of(template: &str) -> ToolSupport {
        let has = |mark: &str| template.contains(mark);
        if !has("tools") {
            ToolSupport::Described(&HERMES)
        } else if has("<tool_call>") && !has("<function=") && !has("<arg_key>") {
            ToolSupport::Native(&HERMES)
        } else if has("[TOOL_CALLS]") && !has("[ARGS]") && !has("[CALL_ID]") {
            ToolSupport::Native(&MISTRAL)
        } else if has("<|start_header_id|>") && has("\"parameters\"") {
            ToolSupport::Native(&LLAMA)
        } else {
            ToolSupport::Unknown
        }
    }

    /// How calls are written; `None`: in no way known here.
    pub fn family(self) -> Option<&'static dyn Family> {
        match self {
            ToolSupport::Native(family) | ToolSupport::Described(family) => Some(family),
            ToolSupport::Unknown => None,
        }
    }
}

impl Reasoning {
    /// How an answer to `prompt` may begin, which `template` has rendered.
    pub fn after(prompt: &str, template: &str) -> Reasoning {
        if prompt.trim_end().ends_with(reasoning::OPENING) {
            Reasoning::Opened
        } else if template.contains(reasoning::CLOSING) {
            Reasoning::MayOpen
        } else {
            Reasoning::Unmarked
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening(template: &str) -> Option<&'static str> {
        Some(ToolSupport::of(template).family()?.markers()[0])
    }

    #[test]
    fn a_family_is_known_by_its_marks() {
        let hermes = "{% if tools %}<tool_call>\n{\"name\": …}{% endif %}";
        assert_eq!(opening(hermes), Some("<tool_call>"));
        assert_eq!(
            opening("{% if tools %}[TOOL_CALLS] [{% endif %}"),
            Some("[TOOL_CALLS]")
        );
        let llama = "<|start_header_id|>{% if tools %}{'{\"name\": …, \"parameters\": '}{% endif %}";
        assert_eq!(opening(llama), Some("<|python_tag|>"));
        assert_eq!(opening("{% if tools %}<tool_call><function=f>{% endif %}"), None);
        assert_eq!(opening("{% if tools %}something else{% endif %}"), None);
    }

    #[test]
    fn a_template_without_tools_has_them_described() {
        let support = ToolSupport::of("<|im_start|>{{ messages[0].content }}");
        assert!(matches!(support, ToolSupport::Described(_)));
    }

    #[test]
    fn reasoning_is_expected_where_the_template_knows_of_it() {
        let thinking = "{{ content.split('</think>') }}";
        assert_eq!(Reasoning::after("<assistant>\n", thinking), Reasoning::MayOpen);
        assert_eq!(
            Reasoning::after("<assistant>\n<think>\n", thinking),
            Reasoning::Opened
        );
        assert_eq!(
            Reasoning::after("<assistant>\n", "{{ content }}"),
            Reasoning::Unmarked
        );
    }
}
