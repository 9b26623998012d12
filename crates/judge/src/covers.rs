//! Whether a judge can judge all that a competition asks of it: told before it takes part in a round's seed.

use arena::spec::{CompetitionSpec, Form};

use crate::error::JudgeError;
use crate::judge::{Code, Judge};

impl Judge {
    /// Whether this judge can judge everything that a competition admits, and measure it. `reference` is the generator or
    /// evaluator that the spec names.
    ///
    /// # Errors
    /// What it lacks: the runtime that is pinned, the processor of native programs, or a jail for programs.
    pub fn covers(&self, spec: &CompetitionSpec, reference: Option<&[u8]>) -> Result<(), JudgeError> {
        Self::has_runtime(spec)?;
        let forms = forms(spec, reference)?;
        for form in &forms {
            Self::has_architecture(spec, *form)?;
        }
        if needs_programs(&forms) { self.can_judge_programs() } else { Ok(()) }
    }

    /// Whether native programs, where they are asked for, can run on this processor.
    pub(crate) fn has_architecture(spec: &CompetitionSpec, form: Form) -> Result<(), JudgeError> {
        let (asked, ours) = (spec.screening.architecture.name(), std::env::consts::ARCH);
        if form == Form::Native && asked != ours {
            return Err(JudgeError::Architecture { asked, ours });
        }
        Ok(())
    }

    /// Whether the runtime is the one that a spec pins, if it pins one.
    pub(crate) fn has_runtime(spec: &CompetitionSpec) -> Result<(), JudgeError> {
        let ours = Self::runtime_hash();
        match spec.resources.runtime.filter(|pinned| *pinned != ours) {
            Some(pinned) => Err(JudgeError::Runtime { pinned, ours }),
            None => Ok(()),
        }
    }
}

/// Whether anything that runs is a program.
fn needs_programs(forms: &[Form]) -> bool {
    forms.iter().any(|form| *form != Form::Component)
}

/// Forms of everything that runs: entries, the baseline, the generator or evaluator.
fn forms(spec: &CompetitionSpec, reference: Option<&[u8]>) -> Result<Vec<Form>, JudgeError> {
    let reference = reference.map(Code::reference).transpose()?;
    let baseline = spec.baseline.code.map(|_| spec.baseline.form);
    let entries = spec.submission.forms.iter().copied();
    Ok(entries.chain(baseline).chain(reference.map(|code| code.form)).collect())
}

#[cfg(test)]
mod tests {
    use wire::Hash;

    use super::*;

    const SPEC: &str =
        "name = \"x\"\nkind = \"codec\"\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n";

    fn spec(more: &str) -> CompetitionSpec {
        CompetitionSpec::parse(&format!("{SPEC}{more}")).unwrap()
    }

    #[test]
    fn entries_baseline_and_generator_may_each_need_a_jail() {
        let components = "[submission]\nforms = [\"component\"]\n";
        let code = Hash::of(b"code");
        let baseline = |form: &str| {
            format!("{components}[baseline]\nname = \"b\"\nform = \"{form}\"\ncode = \"{code}\"\n")
        };
        let module: &[u8] = b"\0asm\x0d\0\x01\0";
        for (text, reference, needs) in [
            (components.to_owned(), None, false),
            ("[submission]\nforms = [\"component\", \"python\"]\n".to_owned(), None, true),
            (baseline("component"), None, false),
            (baseline("python"), None, true),
            (baseline("native"), None, true),
            (components.to_owned(), Some(module), false),
            (components.to_owned(), Some(&b"print(1)\n"[..]), true),
        ] {
            assert_eq!(needs_programs(&forms(&spec(&text), reference).unwrap()), needs, "{text}");
        }
        assert!(forms(&spec(components), Some(&[])).is_err());
    }

    #[test]
    fn native_programs_of_another_processor_are_left_to_others() {
        let admits = |form: &str| format!("[submission]\nforms = [\"{form}\"]\n");
        let made_for = |name: &str| format!("[screening]\narchitecture = \"{name}\"\n");
        let other = if std::env::consts::ARCH == "x86_64" { "aarch64" } else { "x86_64" };
        let has = |text: String, form| Judge::has_architecture(&spec(&text), form);
        assert!(has(admits("native") + &made_for(other), Form::Native).is_err());
        assert!(has(admits("python") + &made_for(other), Form::Python).is_ok());
        if ["x86_64", "aarch64"].contains(&std::env::consts::ARCH) {
            assert!(has(admits("native") + &made_for(std::env::consts::ARCH), Form::Native).is_ok());
        }
    }

    #[test]
    fn a_baseline_or_evaluator_of_another_processor_is_left_to_others_too() {
        let native = format!(
            "[submission]\nforms = [\"component\"]\n[baseline]\nname = \"b\"\nform = \"native\"\ncode = \"{}\"\n",
            Hash::of(b"code")
        );
        assert_eq!(forms(&spec(&native), None).unwrap(), [Form::Component, Form::Native]);
        let components = spec("[submission]\nforms = [\"component\"]\n");
        assert_eq!(forms(&components, Some(b"\x7fELF\x02\x01")).unwrap(), [Form::Component, Form::Native]);
    }

    #[test]
    fn another_runtime_than_the_pinned_one_covers_nothing() {
        let pinned = |hash: Hash| spec(&format!("[resources]\nruntime = \"{hash}\"\n"));
        assert!(Judge::has_runtime(&spec("")).is_ok());
        assert!(Judge::has_runtime(&pinned(Judge::runtime_hash())).is_ok());
        let error = Judge::has_runtime(&pinned(Hash::of(b"older"))).unwrap_err();
        assert!(matches!(error, JudgeError::Runtime { .. }), "{error}");
    }
}
