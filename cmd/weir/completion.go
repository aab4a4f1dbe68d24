package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/controlplane/api"
)

// The scripts ask weir itself what can come next, by the flag that cli/v2
// answers when EnableBashCompletion is set. They leave the word that is being
// typed to the shell, but for a dash in its place if it is a flag. When weir has
// no answer the shell offers files.
const (
	bashCompletion = `_weir_complete() {
  local cur="${COMP_WORDS[COMP_CWORD]}" words
  local -a before=("${COMP_WORDS[@]:0:COMP_CWORD}")
  if [[ "$cur" == "=" ]]; then cur=""; fi
  if [[ "$cur" == -* ]]; then before+=(-); fi
  words=$("${before[@]}" --generate-bash-completion 2>/dev/null)
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o bashdefault -o default -F _weir_complete weir
`
	zshCompletion = `#compdef weir
_weir_complete() {
  local -a before answer
  before=("${(@)words[1,CURRENT-1]}")
  if [[ "${words[CURRENT]}" == -* ]]; then before+=(-); fi
  answer=("${(@f)$("${before[@]}" --generate-bash-completion 2>/dev/null)}")
  if [[ -n "${answer[1]}" ]]; then compadd -- "${answer[@]}"; else _files; fi
}
compdef _weir_complete weir
`
)

func completionCommand() *cli.Command {
	script := func(name, text, usage string) *cli.Command {
		return &cli.Command{
			Name: name, Usage: usage,
			Action: func(c *cli.Context) error {
				if err := noArguments(c); err != nil {
					return err
				}
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

// complete prints what can come next, a word a line: flags after a dash, values
// after the flag that has them, else the commands below this one.
func complete(c *cli.Context) {
	before := slices.DeleteFunc(slices.Clone(os.Args), func(word string) bool { return word == "=" })
	last := ""
	if n := len(before); n >= 2 {
		last = before[n-2] // the one after it asks for completion
	}
	if last == "-" {
		for _, f := range c.Command.VisibleFlags() {
			for _, name := range f.Names() {
				fmt.Fprintln(c.App.Writer, dashed(name))
			}
		}
		return
	}
	for _, f := range c.Command.Flags {
		isLast := func(name string) bool { return dashed(name) == last }
		if !slices.ContainsFunc(f.Names(), isLast) {
			continue
		}
		switch f.Names()[0] {
		case "output":
			fmt.Fprintln(c.App.Writer, strings.Join(outputFormats(), "\n"))
		case "service":
			printAll(c, func(b *api.Backend) string { return b.Service })
		case "backend":
			printAll(c, func(b *api.Backend) string { return b.Address.String() })
		}
		return
	}
	switch c.Command.Name {
	case "drain", "undrain":
		printAll(c, func(b *api.Backend) string { return b.Address.String() })
		return
	case "doctor":
		printAll(c, func(b *api.Backend) string { return b.Service })
		return
	}
	for _, below := range c.Command.VisibleCommands() {
		fmt.Fprintln(c.App.Writer, below.Name)
	}
}

// printAll prints what a running weir's backends have, each once; nothing if
// none runs.
func printAll(c *cli.Context, of func(*api.Backend) string) {
	socket := c.String("socket")
	if socket == "" {
		socket = defaultSocket
	}
	var all []api.Backend
	if api.NewClient(socket).Get(c.Context, "backends", &all) != nil {
		return
	}
	var words []string
	for i := range all {
		if word := of(&all[i]); !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	if len(words) > 0 {
		fmt.Fprintln(c.App.Writer, strings.Join(words, "\n"))
	}
}

func dashed(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}
