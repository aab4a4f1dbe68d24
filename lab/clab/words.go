package clab

import (
	"errors"
	"strings"
)

var (
	errOpenQuote  = errors.New("a quote is not closed")
	errOpenEscape = errors.New("nothing after the last backslash")
)

// words splits a command into program and arguments, as containerlab does with
// google/shlex: words end at blanks; single quotes keep all as it is; in double
// quotes and outside of quotes a backslash takes away the meaning of what
// follows it; a word that begins with # begins a comment, to the line's end.
func words(command string) ([]string, error) {
	var all []string
	var word strings.Builder
	inWord, escaped, comment := false, false, false
	quote := rune(0)
	for _, r := range command {
		switch {
		case comment:
			comment = r != '\n'
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quote != 0 && r == quote:
			quote = 0
		case r == '\\' && quote != '\'':
			inWord, escaped = true, true
		case quote != 0:
			word.WriteRune(r)
		case r == '"' || r == '\'':
			inWord, quote = true, r
		case strings.ContainsRune(" \t\r\n", r):
			if inWord {
				all = append(all, word.String())
				word.Reset()
			}
			inWord = false
		case r == '#' && !inWord:
			comment = true
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	switch {
	case escaped:
		return nil, errOpenEscape
	case quote != 0:
		return nil, errOpenQuote
	case inWord:
		all = append(all, word.String())
	}
	return all, nil
}
