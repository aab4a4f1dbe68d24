package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// The scripts ask weir itself what can come next, by the flag that cli/v2
// answers when EnableBashCompletion is set.
const (
	bashCompletion = `_weir_complete() {
  local cur="${COMP_WORDS[COMP_CWORD]}" words
  if [[ "$cur" == -* ]]; then
    words=$("${COMP_WORDS[@]:0:$COMP_CWORD}" "$cur" --generate-bash-completion 2>/dev/null)
  else
    words=$("${COMP_WORDS[@]:0:$COMP_CWORD}" --generate-bash-completion 2>/dev/null)
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _weir_complete weir
`
	zshCompletion = `#compdef weir
_weir_complete() {
  local -a words_
  words_=("${(@f)$(_CLI_ZSH_AUTOCOMPLETE_HACK=1 ${words[@]:0:#words[@]-1} --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${words_[1]}" ]]; then _describe 'weir' words_; else _files; fi
}
compdef _weir_complete weir
`
)

func completionCommand() *cli.Command {
	script := func(name, text, usage string) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage,
			Action: func(c *cli.Context) error {
				_, err := fmt.Fprint(c.App.Writer, text)
				return err
			},
		}
	}
	return &cli.Command{
		Name:  "completion",
		Usage: "print a shell completion script",
		Subcommands: []*cli.Command{
			script("bash", bashCompletion, "for bash: source <(weir completion bash)"),
			script("zsh", zshCompletion, "for zsh: source <(weir completion zsh)"),
		},
	}
}
