package main

import "fmt"

type demoInfo struct{}

func demoWorld(o options) (*world, error) { return nil, fmt.Errorf("demo world: later") }
