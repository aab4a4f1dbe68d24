package clab

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// PartCommand is the first argument by which the engine starts its own program
// again. A program that calls [Deploy] has to call [Part] with the arguments
// after it, and do nothing else then.
const PartCommand = "topology-part"

// The parts that run in processes of their own.
const (
	holdPart    = "hold"    // the first process of a node
	guardPart   = "guard"   // what a check script runs under
	controlPart = "control" // what asks the engine to kill or start a node
)

// Part does what the engine has started this process for, and returns the exit
// status.
func Part(args []string) int {
	// weirlab ignores it, and children would, too.
	signal.Reset(unix.SIGPIPE)
	status := 1
	err := fmt.Errorf("%v: the engine starts this, nobody else", args)
	switch {
	case len(args) == 1 && args[0] == holdPart:
		status, err = 0, hold(os.Stdin, os.Stdout)
	case len(args) == 2 && args[0] == guardPart:
		status, err = guard(args[1])
	case len(args) == 4 && args[0] == controlPart:
		status, err = 0, ask(args[1], request{Do: args[2], Node: args[3]})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(status, 1)
	}
	return status
}
