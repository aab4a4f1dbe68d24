package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/urfave/cli/v2"

	"weir/controlplane/api"
	"weir/controlplane/show"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "find out why a backend does not answer, and what to do about it",
		ArgsUsage: "[SERVICE]",
		Description: "Has the running weir try, for each backend of the service, or of all, what its\n" +
			"traffic depends on, one thing after the other: link, route, neighbour, ping, path\n" +
			"MTU, the port on its own address, the VIP on it, the tunnel, where answers come\n" +
			"from. It stops at a backend's first fault, and says how to mend it. Nothing is\n" +
			"changed. Takes up to a minute. Exits with 1 if anything is wrong.",
		Flags: []cli.Flag{socketFlag(), outputFlag()},
		Action: func(c *cli.Context) error {
			args, err := interspersed(c)
			if err != nil {
				return err
			}
			if len(args) > 1 {
				return errors.New("name one service, or none for all: weir doctor [SERVICE]")
			}
			asJSON, err := wantsJSON(c)
			if err != nil {
				return err
			}
			noun := "doctor"
			if len(args) == 1 {
				noun += "?" + url.Values{"service": args}.Encode()
			}
			return doctor(c, noun, asJSON)
		},
	}
}

func doctor(c *cli.Context, noun string, asJSON bool) error {
	var d api.Diagnosis
	if err := api.NewClient(c.String("socket")).Get(c.Context, noun, &d); err != nil {
		return err
	}
	var err error
	if asJSON {
		err = show.JSON(c.App.Writer, d)
	} else {
		err = show.Diagnosis(c.App.Writer, &d)
	}
	if err != nil {
		return err
	}
	switch n := d.Faults(); n {
	case 0:
		return nil
	case 1:
		return errors.New("there is 1 fault")
	default:
		return fmt.Errorf("there are %d faults", n)
	}
}
